import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CliError } from './cli-error.js';

/** PEM certificates. */
export interface ServerTrust {
  /** `QUORATE_CA_FILE`: further authorities. */
  readonly authorities?: string;
  /** The server's own certificate, from the file that the server on this machine uses: whoever has it is the server. */
  readonly itself?: string;
}

/** Where the admin API is, and what to sign in with. */
export interface ServerAddress {
  /** `http://127.0.0.1:8080`, without a slash at the end. */
  readonly url: string;
  readonly token: string | undefined;
  /** How an https server is known, besides by the authorities that Node knows. */
  readonly trust: ServerTrust;
  /** Where a token was looked for, in words, for the message when there is none or it is not taken. */
  readonly tokenPlace: string;
  /** How the server is started, for the message when it does not answer; undefined when it is another machine's. */
  readonly startCommand: string | undefined;
}

/**
 * Finds the server. `--data DIR` names its data directory on this machine; without it, `QUORATE_URL` and
 * `QUORATE_TOKEN` say where it is; without those it is `QUORATE_DATA` or `./data`. The administrator's token in a data directory is used
 * with that directory's server only, never sent to where `QUORATE_URL` points.
 */
export async function findServer(
  dataDirectory: string | undefined,
  environment: NodeJS.ProcessEnv,
): Promise<ServerAddress> {
  const url = nonEmpty(environment['QUORATE_URL']);
  const token = nonEmpty(environment['QUORATE_TOKEN']);
  if (dataDirectory === undefined && url !== undefined) {
    return {
      url: checkedUrl(url, 'QUORATE_URL'),
      trust: await authoritiesIn(environment),
      token,
      tokenPlace: 'QUORATE_TOKEN',
      startCommand: undefined,
    };
  }
  const directory = dataDirectory ?? nonEmpty(environment['QUORATE_DATA']) ?? './data';
  const tokenFile = join(directory, 'admin-token');
  const { url: local, tlsCertFile } = await serverIn(directory);
  return {
    url: local,
    trust: { ...(await authoritiesIn(environment)), ...(await certificateIn(tlsCertFile)) },
    token: token ?? (await tokenIn(tokenFile)),
    tokenPlace: `QUORATE_TOKEN or ${tokenFile}`,
    startCommand: startCommand(directory),
  };
}

async function authoritiesIn(environment: NodeJS.ProcessEnv): Promise<ServerTrust> {
  const file = nonEmpty(environment['QUORATE_CA_FILE']);
  if (file === undefined) return {};
  try {
    return { authorities: await readFile(file, 'utf8') };
  } catch (error) {
    throw new CliError(`QUORATE_CA_FILE names ${file}, which cannot be read`, { cause: error });
  }
}

/** Only the first certificate of the file: the others are authorities, which vouch for other servers too. */
async function certificateIn(file: string | undefined): Promise<ServerTrust> {
  if (file === undefined) return {};
  const text = await readFile(file, 'utf8').catch(() => '');
  const first = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(text)?.[0];
  return first === undefined ? {} : { itself: first };
}

async function serverIn(
  directory: string,
): Promise<{ readonly url: string; readonly tlsCertFile: string | undefined }> {
  const file = join(directory, 'server.json');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'EACCES') throw new CliError(`cannot read ${file}: permission denied`);
    if (await isStorageNode(directory)) {
      throw new CliError(
        `${directory} is a storage node's, and front-ends take commands: name the data directory of one on this machine with --data DIR, or set QUORATE_URL and QUORATE_TOKEN`,
        { cause: error },
      );
    }
    throw new CliError(
      `no server found: there is no ${file}; start one with "${startCommand(directory)}", name its data directory with --data DIR, or set QUORATE_URL and QUORATE_TOKEN`,
      { cause: error },
    );
  }
  const url = textIn(text, 'httpUrl');
  if (url === undefined) {
    throw new CliError(`${file} does not say where the server is; start the server again`);
  }
  return { url: checkedUrl(url, file), tlsCertFile: textIn(text, 'tlsCertFile') };
}

async function isStorageNode(directory: string): Promise<boolean> {
  try {
    await access(join(directory, 'node.json'));
    return true;
  } catch {
    return false;
  }
}

function textIn(json: string, name: string): string | undefined {
  try {
    const record: unknown = JSON.parse(json);
    const value =
      typeof record === 'object' && record !== null
        ? Object.entries(record).find(([key]) => key === name)?.[1]
        : undefined;
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}

async function tokenIn(file: string): Promise<string | undefined> {
  try {
    return nonEmpty((await readFile(file, 'utf8')).trim());
  } catch (error) {
    // A server without authentication has none. With a token that others may not read, the server says what is missing.
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'EACCES') return undefined;
    throw error;
  }
}

function checkedUrl(text: string, place: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new CliError(`${place} does not hold a URL like http://127.0.0.1:8080`);
  }
  if (url.username !== '' || url.password !== '') {
    throw new CliError(`${place} holds credentials; put the token into QUORATE_TOKEN`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

function startCommand(directory: string): string {
  return directory === './data' ? 'quorate serve' : `quorate serve --data ${directory}`;
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text;
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
