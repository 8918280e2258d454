// What a test run left behind. On Linux from /proc; elsewhere only files are looked for.
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';

/** Processes other than this one that belong to the session, or work in, hold or were given the directory. */
export function leftProcesses(session, directory) {
  if (!existsSync('/proc/self/stat')) return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => isAlive(pid) && (sessionOf(pid) === session || uses(pid, directory)))
    .map((pid) => ({ pid: Number(pid), command: text(pid, 'cmdline') }));
}

function uses(pid, directory) {
  if (['cmdline', 'environ'].some((name) => text(pid, name).includes(directory))) return true;
  return [`/proc/${pid}/cwd`, ...descriptors(pid)].some((name) => link(name).startsWith(directory));
}

/** Fields after the command's name, which may hold anything up to its last parenthesis: state, ppid, pgrp, session. */
function stat(pid) {
  return text(pid, 'stat')
    .replace(/^.*\) /s, '')
    .split(' ');
}

function isAlive(pid) {
  const [state = ''] = stat(pid);
  return state !== '' && state !== 'Z';
}

function sessionOf(pid) {
  return Number(stat(pid)[3]);
}

function text(pid, name) {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return ''; // gone meanwhile, or somebody else's
  }
}

function descriptors(pid) {
  try {
    return readdirSync(`/proc/${pid}/fd`).map((fd) => `/proc/${pid}/fd/${fd}`);
  } catch {
    return [];
  }
}

function link(name) {
  try {
    return readlinkSync(name);
  } catch {
    return '';
  }
}
