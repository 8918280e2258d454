/** A failure told to the user in one sentence: `quorate: MESSAGE`. */
export class CliError extends Error {
  /** 1: it was tried, and failed; 2: what was typed is wrong as it stands, so nothing was tried; 130: ended by Ctrl-C. */
  readonly exitCode: 1 | 2 | 130;

  constructor(message: string, options: { exitCode?: 1 | 2 | 130; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = options.exitCode ?? 1;
  }
}

/** The server could not be reached, or the connection broke: it may be there again in a moment. */
export class ConnectionLost extends CliError {}
