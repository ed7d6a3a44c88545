//! The provider plane: domain map, claims, consumer placement.
