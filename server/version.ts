import { readFileSync } from 'node:fs';

/** The package's version, as `quorate --version` and `quorate_build_info` say it. */
export const version: string = versionOf(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
);

function versionOf(packageJson: string): string {
  const content: unknown = JSON.parse(packageJson);
  if (typeof content !== 'object' || content === null || !('version' in content)) return 'unknown';
  return String(content.version);
}
