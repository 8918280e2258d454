/*
 * The command line that git clients give to ssh (gitprotocol-pack(5), "SSH Transport").
 *
 *   command  = ("git-" / "git ") service SP quoted
 *   service  = "upload-pack" / "receive-pack" / "upload-archive"
 *   quoted   = "'" *(sq-char / escape) "'"
 *   sq-char  = any but "'" and NUL
 *   escape   = "'\''" / "'\!'"           ; as git's sq_quote writes "'" and "!"
 *
 * Nothing here is ever given to a shell.
 */
import { WireError } from './wire-error.js';

export type SshGitService = 'git-upload-pack' | 'git-receive-pack' | 'git-upload-archive';

export interface SshGitCommand {
  readonly service: SshGitService;
  /** Unquoted, and otherwise as the client wrote it. Hostile. */
  readonly path: string;
}

/** Longest command line looked at: the longest path of Linux, every byte escaped. */
const maxLength = 16_384;

const services: ReadonlyMap<string, SshGitService> = new Map([
  ['upload-pack', 'git-upload-pack'],
  ['receive-pack', 'git-receive-pack'],
  ['upload-archive', 'git-upload-archive'],
]);

/** Throws WireError: `unsupported` for another command, `malformed` for bad quoting, `too-large`. */
export function parseSshCommand(line: string): SshGitCommand {
  if (line.length > maxLength) throw new WireError('too-large', 'the command is too long');
  const match = /^git[- ](upload-pack|receive-pack|upload-archive)(?: (.*))?$/s.exec(line);
  const service = services.get(match?.[1] ?? '');
  if (service === undefined) {
    throw new WireError(
      'unsupported',
      'only git-upload-pack, git-receive-pack and git-upload-archive can be run here',
    );
  }
  return { service, path: parseQuoted(match?.[2] ?? '') };
}

export function writeSshCommand({ service, path }: SshGitCommand): string {
  return `${service} '${path.replace(/['!]/g, (char) => `'\\${char}'`)}'`;
}

function parseQuoted(text: string): string {
  const body = /^'((?:[^'\0]|'\\['!]')*)'$/.exec(text)?.[1];
  if (body === undefined) {
    throw new WireError('malformed', 'the path must be one word in single quotes');
  }
  return body.replace(/'\\(['!])'/g, '$1');
}
