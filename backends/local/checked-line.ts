import { hash } from 'node:crypto';

/**
 * Texts are as long as this, or a multiple of it, so that the next one nearly always fits into what the last one in
 * their file took: to sync it changes no metadata then.
 */
const blockBytes = 4096;

/** Of the text before it. One digit that turned over would make a copy seem ahead, or behind. */
const checksum = /,"checksum":"([0-9a-f]{16})"\}$/;

function checksumOf(text: string): string {
  return hash('sha256', text).slice(0, 16);
}

/**
 * An object as one line of a file that is written over in place; what comes after it in the file is the rest of a
 * longer one, or nothing.
 */
export function encodeCheckedLine(value: object): string {
  const text = JSON.stringify(value);
  const line = `${text.slice(0, -1)},"checksum":"${checksumOf(text)}"}\n`;
  const sizeBytes = Buffer.byteLength(line);
  return line + ' '.repeat(Math.ceil(sizeBytes / blockBytes) * blockBytes - sizeBytes);
}

/** JSON of what a file holds; undefined when it is damaged. `checked`: it has a checksum, which is right. */
export function decodeCheckedLine(
  file: string,
): { readonly text: string; readonly checked: boolean } | undefined {
  const [line = ''] = file.split('\n', 1);
  const text = line.replace(checksum, '}');
  const known = checksum.exec(line)?.[1];
  if (known !== undefined && known !== checksumOf(text)) return undefined;
  return { text, checked: known !== undefined };
}
