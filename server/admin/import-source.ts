import { QuorateError } from '../../backends/contract/errors.js';

/** Longer than any URL or path that git and file systems take (PATH_MAX). */
const maxSourceLength = 4096;

/** What git may fetch from. Every other transport, above all `ext::` (which runs a program), is refused. */
const schemes = new Set(['http:', 'https:', 'git:', 'ssh:']);

export interface ImportSource {
  /** As the backend gets it. May hold credentials: not for logs. */
  readonly source: string;
  /** The same without credentials, query and fragment: for logs, the audit trail and messages. */
  readonly shown: string;
  /**
   * It reads with the server's own rights: its disk, or as the SSH identity of its operating-system user. Only
   * server administrators may ask for that.
   */
  readonly privileged: boolean;
  /** `text` with the source's credentials taken out, for what git may say about it. */
  readonly redact: (text: string) => string;
}

/**
 * Judges what a client wants to import from: an `http`, `https`, `git` or `ssh` URL, or an absolute path on the
 * server. Throws `invalid-argument` for anything else.
 */
export function parseImportSource(source: string): ImportSource {
  if (source.length > maxSourceLength) throw refusal('it is longer than 4,096 characters');
  if (/[\x00-\x20\x7f]/.test(source)) throw refusal('it holds a space or a control character');
  if (source.startsWith('/')) {
    if (source.split('/').includes('..')) throw refusal('the path holds ".."');
    return { source, shown: source, privileged: true, redact: (text) => text };
  }
  if (source.startsWith('-')) throw refusal('it starts with "-"');
  const url = URL.canParse(source) ? new URL(source) : undefined;
  // `ext::` and friends parse as URLs with the scheme `ext:`; `host:path` parses with the scheme `host:`.
  if (url === undefined || !schemes.has(url.protocol) || !/^[a-z]+:\/\//i.test(source)) {
    throw refusal('give an http, https, git or ssh URL, or an absolute path on the server');
  }
  if (url.hostname === '') throw refusal('the URL names no host');
  // git refuses these too; ssh would read them as options.
  const authority = [url.hostname, url.username, url.password].map(decoded);
  if (authority.some((part) => part.startsWith('-'))) {
    throw refusal('host or user starts with "-"');
  }
  const shown = `${url.protocol}//${url.host}${url.pathname}`;
  const secrets = [
    source,
    ...[url.password, url.search, url.hash].flatMap((part) => [part, decoded(part)]),
  ];
  return {
    source,
    shown,
    privileged: url.protocol === 'ssh:',
    redact: (text) =>
      secrets
        .filter((secret) => secret !== '')
        .reduce((rest, secret) => rest.replaceAll(secret, secret === source ? shown : '***'), text),
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw refusal('it is not valid percent-encoding');
  }
}

/** Never quotes the source: it may hold credentials. */
function refusal(why: string): QuorateError {
  return new QuorateError('invalid-argument', `cannot import from that source: ${why}`, {
    details: { fields: [{ path: 'source', problem: why }] },
  });
}
