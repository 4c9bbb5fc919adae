"""What is raised for data that cannot be used."""


class DatasetError(ValueError):
    """A data set cannot be used as it is; the message says where and what to do."""


class MissingDataError(DatasetError):
    """Files or folders of a data set are not where the config says.

    A check that knows the config adds how to point to another place.
    """
