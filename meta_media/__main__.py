"""`python -m meta_media` is `meta-media`."""

import sys

from meta_media.cli import main

if __name__ == "__main__":
    sys.exit(main())
