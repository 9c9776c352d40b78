"""Local engines from Maven jars: fetched, started, watched and stopped without Docker or an administrator."""
