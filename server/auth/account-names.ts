/** Names of users and of groups: they stand in keys of the coordinator, in URLs and in the audit trail. */
export function isUserName(name: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{0,63}$/.test(name);
}
