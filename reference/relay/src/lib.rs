//! The media relay: legs and RTP forwarding.
