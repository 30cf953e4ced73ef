"""Judges finished runs: `python evaluate.py run=RUN_DIR`. See `python evaluate.py --help`."""

from vaelab.evaluate import main

if __name__ == "__main__":
    main()
