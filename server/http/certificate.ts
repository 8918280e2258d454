export interface CertificatePair {
  /** PEM: the server's certificate, then those between it and the authority. */
  readonly cert: Buffer;
  /** PEM, without a passphrase. */
  readonly key: Buffer;
}

/** A certificate with its key that may change while the server runs. */
export interface CertificateSource {
  readonly current: CertificatePair;
  /** Called with each new pair that is good. */
  onChange(listener: (pair: CertificatePair) => void): void;
}
