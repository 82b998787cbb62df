"""The compiled readers: bytes of many records to columns, one pass, every record by itself.

Modules of this package know bytes and arrays, no schemas, no frames. Importing one of them loads the compiler.
"""
