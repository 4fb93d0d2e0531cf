"""Headless runner, result store and HTML report for the notebooks.

``python -m workbook run`` executes the notebooks with papermill and leaves one folder a run:
``results.csv``, ``run.json``, executed notebooks, their HTML, figures, tables and ``index.html``.
Nothing here knows a compiler; nothing in ``relaxquant`` knows this package.
"""
