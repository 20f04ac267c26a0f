"""The pages and the API where a consortium is run."""
