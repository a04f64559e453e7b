"""Facts about EasyPost. It publishes no description of its objects, so its recorded answers and its documentation are the judges."""
