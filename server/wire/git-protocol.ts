/*
 * The `Git-Protocol` header and `GIT_PROTOCOL` (gitprotocol-v2(5), gitprotocol-http(5)).
 *
 *   git-protocol = parameter *(":" parameter)
 *   parameter    = key ["=" value]             ; "version=2"
 */

/** Longest value looked at; git's own clients send about 10 bytes. */
const maxLength = 1024;

/** The highest known version that the client names; 0 for nothing, nonsense and versions unknown here. */
export function parseGitProtocol(value: string | undefined): 0 | 1 | 2 {
  if (value === undefined || value.length > maxLength) return 0;
  const parameters = value.split(':');
  if (parameters.includes('version=2')) return 2;
  return parameters.includes('version=1') ? 1 : 0;
}

export function writeGitProtocol(version: 0 | 1 | 2): string {
  return `version=${version}`;
}
