//! The file layer: flat structs of spanned values, unknown keys refused.
