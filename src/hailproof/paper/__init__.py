"""The paper's figures and tables: played anew and held against what it claims."""
