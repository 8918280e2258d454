import { QuorateError } from '../../backends/contract/errors.js';

/** Stands in for `server/core/repository-name.ts` until that lands. */
export function parseRepositoryName(path: string): string {
  const name = path.replace(/^\//, '').replace(/\.git$/, '');
  const sound = name
    .split('/')
    .every((part) => /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(part) && !part.endsWith('.git'));
  if (!sound) throw new QuorateError('invalid-argument', 'that is not a repository name');
  return name;
}
