import { open } from 'node:fs/promises';

/** Of the headers of git's last requests: those of one answer are a few hundred bytes. */
const maxReadBytes = 64 * 1024;

/** Environment that has git (rather, its curl) write the HTTP headers that it sends and gets to a file; no credentials. */
export function tracingHttpTo(file: string): Readonly<Record<string, string>> {
  return { GIT_TRACE_CURL: file, GIT_TRACE_CURL_NO_DATA: '1', GIT_TRACE_REDACT: '1' };
}

/** The status of the last HTTP answer that git got (RFC 9110 section 15); undefined when it got none. */
export async function lastHttpStatus(file: string): Promise<number | undefined> {
  const handle = await open(file, 'r').catch(() => undefined);
  if (handle === undefined) return undefined;
  try {
    const { size } = await handle.stat();
    const bytes = Buffer.alloc(Math.min(size, maxReadBytes));
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, size - bytes.length);
    const trace = bytes.toString('latin1', 0, bytesRead);
    const status = [...trace.matchAll(/<= Recv header: HTTP\/[\d.]+ (\d{3})\b/g)].at(-1)?.[1];
    return status === undefined ? undefined : Number(status);
  } finally {
    await handle.close();
  }
}
