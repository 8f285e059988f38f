from .errors import TiewiseError as TiewiseError
