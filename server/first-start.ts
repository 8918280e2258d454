import { asQuorateError } from '../backends/contract/errors.js';
import type { Accounts } from './auth/accounts.js';
import type { Config } from './config.js';
import { repeated } from './auth/repeated.js';
import { adminTokenFileName } from './data-directory.js';
import type { DataDirectory, ServerFile } from './data-directory.js';
import type { AuditLog } from './observe/audit.js';
import type { NodeFile } from './storage-composition.js';

export const adminName = 'admin';
const firstTokenName = 'first start';

type FirstAccounts = Pick<
  Accounts,
  'getUser' | 'createUser' | 'listTokens' | 'createToken' | 'revokeToken'
>;

/**
 * Makes the user `admin` and its token, and writes the token where only this system user can read it. Run again after
 * a crash at any point of it, it ends the same way: a token whose file was never written is revoked, since nobody
 * knows it. The first start counts as done when `server.json` exists, which is written after this.
 *
 * `place` names the data directory among those that share a coordinator: each gets a token of its own, and spares those
 * of the others. `made`: the user was not there before. What the coordinator's answer was lost of is done again, a few
 * times: then `outcome-unknown` ends the start.
 */
export async function createFirstAdmin(
  parts: { readonly accounts: FirstAccounts; readonly audit: Pick<AuditLog, 'record'> },
  data: Pick<DataDirectory, 'write'>,
  place?: string,
): Promise<{ readonly made: boolean }> {
  const { accounts, audit } = parts;
  const tokenName = place === undefined ? firstTokenName : `${firstTokenName} at ${place}`;
  const wasThere = (await accounts.getUser(adminName)) !== undefined;
  const made = !wasThere && (await repeated(() => createAdmin(accounts)));
  const { token, secret } = await repeated(async () => {
    for (const token of await accounts.listTokens(adminName)) {
      if (token.name === tokenName) await accounts.revokeToken(token.id).catch(unlessGone);
    }
    return accounts.createToken({ user: adminName, name: tokenName, scope: 'admin' });
  });
  await data.write(adminTokenFileName, `${secret}\n`);
  const details = { action: 'first start', user: adminName, token: token.id };
  audit.record({ event: 'admin', outcome: 'ok', actor: 'system', details });
  return { made };
}

/** False when another server that shares the coordinator was first. Of an answer that was lost nobody knows who was. */
async function createAdmin(accounts: FirstAccounts): Promise<boolean> {
  try {
    await accounts.createUser({ name: adminName, admin: true, canCreate: true });
    return true;
  } catch (error) {
    const { code } = asQuorateError(error);
    if (code === 'outcome-unknown' && (await accounts.getUser(adminName)) !== undefined)
      return true;
    if (code !== 'already-exists') throw error;
    return false;
  }
}

/** A token that was revoked already, by a call whose answer was lost. */
function unlessGone(error: unknown): void {
  if (asQuorateError(error).code !== 'not-found') throw error;
}

export interface Announcement {
  readonly config: Config;
  readonly server: ServerFile;
  readonly dataDirectory: string;
  /** Prints the lines to paste too. */
  readonly first: boolean;
  /** The first start made the user `admin`; otherwise another server of the cluster had, and only a token was made. */
  readonly adminMade: boolean;
  /** How this program was called: `node dist/server/main.js`, or `quorate`. */
  readonly command: string;
  readonly workingDirectory: string;
}

/** The lines that a start prints for people, on stdout. */
export function announcement(options: Announcement): string {
  const { config, server } = options;
  const url = config.publicUrl ?? server.httpUrl;
  const sshUrl = `ssh://git@${sshHostOf(url, server)}:${server.sshPort}`;
  const lines = [
    `Quorate ${server.version} serves`,
    `  Git over HTTP  ${url}/`,
    `  Git over SSH   ${sshUrl}/`,
    `  operations     ${server.opsUrl}/metrics (/healthz, /readyz, /debug/locks)`,
    `  data           ${options.dataDirectory}`,
    ...(config.noAuth ? ['  access         nobody is asked who they are (--no-auth)'] : []),
  ];
  if (!options.first) return `${lines.join('\n')}\n`;
  return `${[...lines, '', ...(config.noAuth ? openLines(url) : pasteLines(options, url, sshUrl))].join('\n')}\n`;
}

/** The lines that a storage node prints when it serves. */
export function nodeAnnouncement(node: NodeFile, dataDirectory: string): string {
  return [
    `Quorate ${node.version} is a storage node`,
    `  node           ${node.nodeId}, at ${node.address} for the other members`,
    `  operations     ${node.opsUrl}/metrics (/healthz, /readyz)`,
    `  data           ${dataDirectory}`,
    '',
  ].join('\n');
}

function openLines(url: string): readonly string[] {
  return [
    'To paste, in any Git repository:',
    `  git push ${url}/demo.git HEAD:refs/heads/main`,
    `  git clone ${url}/demo.git`,
  ];
}

function pasteLines(options: Announcement, url: string, sshUrl: string): readonly string[] {
  const token = quote(`${options.dataDirectory}/${adminTokenFileName}`);
  const helper = `!f() { echo username=${adminName}; echo password=$(cat ${token}); }; f`;
  const data = relativeTo(options.workingDirectory, options.dataDirectory);
  return [
    options.adminMade
      ? `The user \`${adminName}\` was made; its token is in ${options.dataDirectory}/${adminTokenFileName}. To paste:`
      : `The user \`${adminName}\` was there already; a token for this server is in ${options.dataDirectory}/${adminTokenFileName}. To paste:`,
    '',
    '# let git take the token from there, for this server',
    `git config --global credential.${url}.helper ${quote(helper)}`,
    '# in any Git repository: push it (the first push makes the repository on the server)',
    `git push ${url}/demo.git HEAD:refs/heads/main`,
    '# clone it',
    `git clone ${url}/demo.git`,
    '# add your SSH key (ssh-keygen makes one), then clone over SSH',
    `${options.command} key add ${adminName} ~/.ssh/id_ed25519.pub${data === 'data' ? '' : ` --data ${quote(data)}`}`,
    `git clone ${sshUrl}/demo.git demo-ssh`,
  ];
}

/** Behind a public name SSH is on the same name; on this machine it is where it listens. */
function sshHostOf(url: string, server: ServerFile): string {
  const host = new URL(url).hostname;
  const own = new URL(server.httpUrl).hostname;
  if (host !== own) return host;
  return server.sshHost.includes(':') ? `[${server.sshHost}]` : server.sshHost;
}

function relativeTo(workingDirectory: string, directory: string): string {
  const inside = directory.startsWith(`${workingDirectory}/`);
  return inside ? directory.slice(workingDirectory.length + 1) : directory;
}

/** For a POSIX shell; plain words stay as they are. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
