"""The HTML reports, made from results.json and leaks.parquet alone: `render.render_pages`."""
