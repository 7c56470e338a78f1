/** Home: where to go. */
import type { JSX } from "preact";
import type { BootData } from "../ui/boot.ts";
import { Icon } from "../ui/components/icon.tsx";
import { formatSize, plural } from "../ui/format.ts";
import type { IconName } from "../ui/icons/icon_names.ts";
import { PageShell } from "./page_shell.tsx";

export interface HomePageProps {
  readonly user: BootData["user"];
  /** Messages in the inbox that were not read. */
  readonly unread: number;
  /** Bytes in the drive. */
  readonly usedBytes: number;
}

export function HomePage({ user, unread, usedBytes }: HomePageProps): JSX.Element {
  return (
    <PageShell app="home" user={user}>
      <h1 class="page__title">Hello, {user.username}</h1>
      <p class="muted">Your address is {user.address}</p>
      <div class="tiles">
        <Tile
          href="/mail"
          icon="mail"
          title="Mail"
          text={unread === 0
            ? "No unread messages."
            : `${plural(unread, "unread message", "unread messages")}.`}
        />
        <Tile
          href="/drive"
          icon="folder"
          title="Drive"
          text={usedBytes === 0 ? "Nothing stored yet." : `${formatSize(usedBytes)} of files.`}
        />
        <Tile
          href="/account"
          icon="user"
          title="Account"
          text="Password, sessions, appearance."
        />
        {user.admin && (
          <Tile
            href="/admin"
            icon="server"
            title="Admin"
            text="Nodes, tablets and rows."
          />
        )}
      </div>
    </PageShell>
  );
}

function Tile(
  { href, icon, title, text }: { href: string; icon: IconName; title: string; text: string },
): JSX.Element {
  return (
    <a class="tile" href={href}>
      <span class="tile__icon">
        <Icon name={icon} size="large" />
      </span>
      <span class="tile__title">{title}</span>
      <span class="tile__text">{text}</span>
    </a>
  );
}
