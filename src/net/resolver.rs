//! Names to addresses: static answers first, then the system's name servers (hickory), no search domains, 5 s at most.
