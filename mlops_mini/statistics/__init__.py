"""What tables are like: statistics, schemas, anomalies and drift of any table."""
