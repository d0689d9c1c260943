/*
 * All SQL of the product that runs on the registry thread: STATEMENT(id, parameter count, SQL).
 * Prepared once per connection. Values come and go in text format.
 */
/* clang-format off */
/* ---- login (registry/login.c) ---- */

/* ---- provisioning: tenants ---- */

/* ---- provisioning: devices ---- */

/* ---- provisioning: credentials, CAs, API keys ---- */
