"""`python -m thinslice`: the same program as `thinslice`, where its command is not on the path."""

from thinslice.cli.program import main

if __name__ == "__main__":
    main()
