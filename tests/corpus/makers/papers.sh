# PDF, Office files and text of Debian's programs, in the folder that the script runs in. Its argument is a PDF.
set -e
pdf=$1
gs -q -dNOPAUSE -dBATCH -sDEVICE=pdfwrite -sOutputFile=ghostscript.pdf "$pdf"
gs -q -dNOPAUSE -dBATCH -sDEVICE=pdfwrite -sOwnerPassword=o -sUserPassword=u -dEncryptionR=3 -dKeyLength=128 -sOutputFile=ghostscript-encrypted.pdf "$pdf"
pdftocairo -pdf "$pdf" pdftocairo.pdf; pdftotext "$pdf" pdftotext.txt; pdftotext -enc UTF-16 "$pdf" pdftotext-utf16.txt
qpdf --encrypt u o 256 -- "$pdf" qpdf-encrypted.pdf; qpdf --linearize "$pdf" qpdf-linearized.pdf; qpdf --qdf "$pdf" qpdf-qdf.pdf
printf '# Letter\n\nHello *world*, ça va?\n\n- one\n- two\n' > letter.md
for format in docx odt pptx epub rtf html txt; do to=$format; [ $format = txt ] && to=plain; pandoc -s --metadata title=x letter.md -t $to -o pandoc.$format; done
enscript -q -w rtf -p enscript.rtf letter.md; enscript -q -w html -p enscript.html letter.md
printf '.TH X 1\n.SH NAME\nx \\- \\fBbold\\fP text\n' > x.1; groff -man -Tutf8 x.1 > groff.txt; groff -c -man -Tascii x.1 > groff-overstruck.txt; groff -man -Tpdf x.1 > groff.pdf; groff -man -Thtml x.1 > groff.html 2>/dev/null
printf 'a,b\n1,2\nx,é\n' > table.csv
for format in xlsx xls ods pdf gnumeric html txt; do ssconvert table.csv gnumeric.$format 2>/dev/null; done; ssconvert -T Gnumeric_Excel:excel_biff7 table.csv gnumeric-95.xls 2>/dev/null; cp gnumeric.xls gnumeric-xls-nameless
unix2dos -q -n letter.md unix2dos.txt; unix2dos -q -u -n letter.md unix2dos-utf16.txt
iconv -f utf-8 -t utf-16 letter.md > iconv-utf16.txt; iconv -f utf-8 -t latin1 letter.md > iconv-latin1.txt; gzip -k -c letter.md > gzip.gz; tar cf tar.tar letter.md; cp gzip.gz gzip-as-pdf.pdf; xz -c letter.md > xz.xz; bzip2 -c letter.md > bzip2.bz2
