CREATE DATABASE mlflow OWNER arbooth;
