//! Metric families, counted per run of rows and per statement, never per row.
