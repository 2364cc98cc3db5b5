"""What several tests share: small models, servers, stand-ins for what is outside."""
