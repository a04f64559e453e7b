"""Facts about TaxJar, each with its source, checked against the adapter and the simulation.

Sources: developers.taxjar.com/api/reference (taxjar/taxjar-api-docs at fd58f80, June 2021), "support" is support.taxjar.com, "recorded"
are SuperGoodSoft/solidus_taxjar's cassettes (spec/fixtures/cassettes at ef698c7, 2022 to 2024), "ruby" is taxjar-ruby's spec/fixtures.
"""
