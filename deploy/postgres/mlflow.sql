-- PostgreSQL runs this once, on an empty volume. Prefect's database is POSTGRES_DB; MLflow has its own.
CREATE DATABASE mlflow;
