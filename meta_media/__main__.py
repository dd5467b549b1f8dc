"""`python -m meta_media` runs the command `meta-media`."""

import sys

from meta_media.cli import main

if __name__ == "__main__":
    sys.exit(main())
