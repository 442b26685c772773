"""The mapped classes of these tests."""

from __future__ import annotations

from typing import ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What all of them are declared on."""


class Org(Base):
    """Has members, of which one leads it: two tables that refer to each other."""

    __tablename__ = "orgs"
    __stockpyle_keys__: ClassVar = ["id", "name"]

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    leader_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("users.id", use_alter=True, name="fk_leader"), unique=True
    )
    leader: Mapped[User | None] = relationship(foreign_keys=[leader_id], post_update=True)
    members: Mapped[list[User]] = relationship(back_populates="org", foreign_keys="User.org_id")
    badges: Mapped[list[Badge]] = relationship(back_populates="org", cascade="all, delete-orphan")


class User(Base):
    """Has an alternate key that may be None, and a composite one."""

    __tablename__ = "users"
    __stockpyle_keys__: ClassVar = ["id", "email", ("org_id", "login")]
    __table_args__ = (sa.UniqueConstraint("org_id", "login"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str | None] = mapped_column(unique=True)
    org_id: Mapped[int | None] = mapped_column(sa.ForeignKey("orgs.id"))
    login: Mapped[str | None]
    name: Mapped[str] = mapped_column(default="")
    org: Mapped[Org | None] = relationship(back_populates="members", foreign_keys=[org_id])


class Badge(Base):
    """Belongs to its organisation, and goes with it."""

    __tablename__ = "badges"
    __stockpyle_keys__: ClassVar = ["id", ("org_id", "code")]
    __table_args__ = (sa.UniqueConstraint("org_id", "code"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int] = mapped_column(sa.ForeignKey("orgs.id"))
    code: Mapped[int]
    org: Mapped[Org] = relationship(back_populates="badges")


class Ticket(Base):
    """The database gives it a number, its alternate key."""

    __tablename__ = "tickets"
    __stockpyle_keys__: ClassVar = ["id", "number"]

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None] = mapped_column(unique=True, server_default=sa.text("1000"))
    text: Mapped[str] = mapped_column(default="")


class Stamp(Base):
    """An SQL expression of the mapping's gives it a number, its alternate key."""

    __tablename__ = "stamps"
    __stockpyle_keys__: ClassVar = ["id", "number"]

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int | None] = mapped_column(
        unique=True, default=sa.text("(select 40 + 2)"), onupdate=sa.text("(select 40 + 3)")
    )
    text: Mapped[str] = mapped_column(default="")


class Vehicle(Base):
    """Single-table inheritance."""

    __tablename__ = "vehicles"
    __stockpyle_keys__: ClassVar = ["id", "plate"]
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}

    id: Mapped[int] = mapped_column(primary_key=True)
    plate: Mapped[int] = mapped_column(unique=True)
    kind: Mapped[str]


class Car(Vehicle):
    """Calls itself by a key of its own instead of the plate."""

    __stockpyle_keys__: ClassVar = ["id", "doors"]
    __mapper_args__: ClassVar = {"polymorphic_identity": "car"}

    doors: Mapped[int | None] = mapped_column(unique=True)


class Truck(Vehicle):
    """Has the keys of all vehicles."""

    __mapper_args__: ClassVar = {"polymorphic_identity": "truck"}


class Person(Base):
    """Joined inheritance."""

    __tablename__ = "persons"
    __stockpyle_keys__: ClassVar = ["id", "ssn"]
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "person"}

    id: Mapped[int] = mapped_column(primary_key=True)
    ssn: Mapped[int] = mapped_column(unique=True)
    kind: Mapped[str]


class Employee(Person):
    """Its row is spread over two tables."""

    __tablename__ = "employees"
    __stockpyle_keys__: ClassVar = ["id", "ssn", "desk"]
    __mapper_args__: ClassVar = {"polymorphic_identity": "employee"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("persons.id"), primary_key=True)
    desk: Mapped[int] = mapped_column(unique=True)


class Contact(Base):
    """A second class on the table of the users."""

    __table__ = User.__table__
    __stockpyle_keys__: ClassVar = ["id", "email"]
    __mapper_args__: ClassVar = {"include_properties": ["id", "email", "name"]}


class Other(DeclarativeBase):
    """Classes declared somewhere else."""


class Login(Other):
    """A third class on that table, declared with a Table object of its own."""

    __tablename__ = "users"
    __stockpyle_keys__: ClassVar = ["id", ("org_id", "login")]

    id: Mapped[int] = mapped_column(primary_key=True)
    org_id: Mapped[int | None]
    login: Mapped[str | None]


class Tag(Base):
    """Has a key that the database does not hold unique, and a unique column whose values nobody can ask for."""

    __tablename__ = "tags"
    __stockpyle_keys__: ClassVar = ["id", "label", "code", "parts"]

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    code: Mapped[int] = mapped_column(unique=True)
    parts: Mapped[list[str] | None] = mapped_column(sa.PickleType)
