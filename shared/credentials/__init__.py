"""Credentials of providers in the service that uses them: kept sealed, opened in memory, replaced while both are in use."""

from shared.credentials.adapters import Adapters
from shared.credentials.handlers import listed, put, retire, tried, verify
from shared.credentials.wallet import Credential, CredentialUnfit, NoVault, VaultSettings, Wallet, jobs

__all__ = [
    "Adapters",
    "Credential",
    "CredentialUnfit",
    "NoVault",
    "VaultSettings",
    "Wallet",
    "jobs",
    "listed",
    "put",
    "retire",
    "tried",
    "verify",
]
