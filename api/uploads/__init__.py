"""Hostile input: the way of an upload until the service works on it.

`body` limits what arrives. `forms` and `json_rows` save it in a folder of its own. Parquet is read
by a child process: `decoder_pool` keeps the processes, `decoder_process` is what runs in them, and
`parquet_files` reads and checks the files there, `event_files` those with events. `event_lines`
reads events as JSON lines. `contract` says what an upload may hold.

    <folder>/file, history, articles        what was uploaded, the last two if given
    <folder>/upload/behaviors.parquet       plain Parquet, all that the service ever opens
    <folder>/upload/history.parquet
    <folder>/articles.parquet               if articles were uploaded
    <folder>/events.parquet                 the events, and nothing else, if these were uploaded
    <folder>/result.json                    what the child found, or the parts of a SchemaError
"""
