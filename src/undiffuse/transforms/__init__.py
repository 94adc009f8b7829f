"""Transforms of data to model units, and back.

    base             invertible transforms between data units and model units
    columns          maps of one table column
    column_fitting   the choice of that map
    conditions       attributes on which a model is conditioned
    table_cells      cells of a table as they are read
    column_format    what a column holds, and how it is written
    number_format, date_format   notations of numbers and dates
    table_schema     columns of a run: cells to rows of a model, and samples to cells
"""
