"""Commands that turn files into files.

    impute, csv_text    missing values of a table, filled character by character
    score               log-likelihoods of rows
    restore             degraded images
    sample_to_file      samples of one process or several
    verify              checks against closed forms
"""
