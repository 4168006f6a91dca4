"""Hostile input: what an upload passes before the service works on it.

`body` limits what arrives, `forms` and `json_rows` put it into a folder of the upload's own, and a
child process reads its Parquet: `decoder_pool` in the service, `decoder_process` and what it runs,
`parquet_files`, in the child. `contract` says what an upload may hold.

    <folder>/file, history, articles        what was uploaded, the last two if given
    <folder>/upload/behaviors.parquet       plain Parquet, all that the service ever opens
    <folder>/upload/history.parquet
    <folder>/articles.parquet               if articles were uploaded
    <folder>/result.json                    what the child found, or the parts of a SchemaError
"""
