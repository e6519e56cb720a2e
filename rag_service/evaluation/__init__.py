"""Whether retrieval works: measures of rankings, query sets run against an index version, two versions compared."""
