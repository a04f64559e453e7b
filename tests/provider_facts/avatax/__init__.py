"""Facts about Avalara AvaTax, each with its source, checked against the adapter and the simulation.

Sources: "recorded" are spree-contrib/spree_avatax_official's cassettes (spec/vcr at f98b8d5, 2019) and solidus_avatax_certified's
(boomerdigital, spec/vcr at bf63f75, 2021 and 2024); "models" and "enums" are AvaTax-REST-V2-DotNet-SDK's (avadev, src at 76cd5e3, 2026);
"library" is AvaTax's Python library 26.10.0 (client_methods.py); the pages are developer.avalara.com's.
"""
