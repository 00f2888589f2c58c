"""From the files of a corpus to rows, one module a family of formats.

    streams.py      files as bytes: opened, unpacked, cut into lines; what is not text is refused by name
    encodings.py    which encoding bytes are in
    text_files.py   rows of txt and csv files, and of the objects of json files
    json_files.py   objects of json files; json_shapes.py says what other json files are
    tables.py       rows of parquet and Arrow files and hub datasets

Another format: its ending in `kdaudit.config.paths` (TEXT_SUFFIXES or TABLE_SUFFIXES), its reader here
(`file_objects` or `open_table`), and its name in `kdaudit.corpus.folders` (SUPPORTED).
"""
