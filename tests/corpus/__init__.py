"""
Files as real programs write them, with the verdict that each must have.

`python -m tests.corpus.make FOLDER` installs the programs and makes the files. It needs Debian, Node and an hour at most; what
was made stays. `python -m tests.corpus.check FOLDER` judges them. `rows/` has a module for each family of programs. It has
`PROGRAMS`, which are installed; `INPUTS`, which rows of any module read as `$IN/name`; and `TABLE`, the rows. Longer scripts stand
in `makers/`.
"""
