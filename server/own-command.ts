import path from 'node:path';

/**
 * How people start this program again, from `workingDirectory`: by its name where it was started by that, else by the
 * file that node was given. `script` is the first argument of the process.
 */
export function ownCommand(script: string, workingDirectory: string): string {
  if (path.basename(script) !== 'quorate') {
    return `node ${path.relative(workingDirectory, script)}`;
  }
  // npx runs a link below a directory of its own, whose name says nothing to anybody.
  return script.split(path.sep).includes('node_modules') ? 'npx quorate' : 'quorate';
}
