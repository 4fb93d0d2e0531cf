"""``python -m workbook``."""

from __future__ import annotations

from workbook.cli import main

if __name__ == "__main__":
    main()
