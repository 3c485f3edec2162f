"""The steps of the flow: generators over records that know no engine, no file and not each other."""
