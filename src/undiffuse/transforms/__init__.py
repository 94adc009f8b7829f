"""Transforms of data to model units, and back.

    base             invertible transforms between data units and model units
    columns          maps of one table column
    column_fitting   the choice of that map
    conditions       attributes on which a model is conditioned
    table_schema     cells of a table, and the columns of a run that encode them
"""
