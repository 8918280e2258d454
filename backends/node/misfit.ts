/**
 * What the break of a first connection says of credentials that do not fit: the one side wants TLS and the other has
 * none, or does not believe its certificate. Undefined when it says nothing of them. `hasTls`: this process has
 * certificates for the cluster. `answered`: the node did answer before, and one that was killed ends connections, too:
 * then only what names certificates counts.
 */
export function misfitWords(
  error: unknown,
  { hasTls, answered }: { readonly hasTls: boolean; readonly answered: boolean },
): string | undefined {
  const code = codeOf(error);
  if (code === undefined || (answered && !/ALERT|CERT|SIGNATURE|ISSUER/.test(code))) {
    return undefined;
  }
  if (!hasTls) {
    return code === 'ECONNRESET'
      ? 'a storage node ended the first connection at once: it may want TLS, for which this process has no certificates (cluster.tls.ca, cluster.tls.cert, cluster.tls.key)'
      : undefined;
  }
  if (code === 'EPROTO' || code === 'ERR_SSL_WRONG_VERSION_NUMBER') {
    return 'a storage node does not speak TLS as this process does: all members need certificates (cluster.tls.ca, cluster.tls.cert, cluster.tls.key), or none';
  }
  if (/ALERT|ECONNRESET/.test(code)) {
    return 'a storage node ended the first connection at once: it may not take the certificate of this process (cluster.tls.cert), which has to be of an authority in its cluster.tls.ca, and good for clients';
  }
  if (code === 'CERT_HAS_EXPIRED') {
    return 'the certificate of a storage node has ended: put a new one in the place of its cluster.tls.cert and cluster.tls.key, which it takes without a restart';
  }
  return /CERT|SIGNATURE|ISSUER/.test(code)
    ? `the certificate of a storage node is not taken (${code}): it has to be of an authority in cluster.tls.ca, and good for the address that the node advertises`
    : undefined;
}

/** Of the error, or of what caused it. */
function codeOf(error: unknown): string | undefined {
  for (let one = error; one instanceof Error; one = one.cause) {
    // Node's own codes: ours are in small letters.
    if ('code' in one && typeof one.code === 'string' && /^[A-Z0-9_]+$/.test(one.code)) {
      return one.code;
    }
  }
  return undefined;
}
